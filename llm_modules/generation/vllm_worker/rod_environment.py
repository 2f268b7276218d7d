"""Variables of the processes of vLLM; all can be set from outside."""

ON_CPU = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "4"}
"""On CPUs: threads go where the system wants, 4 GiB for keys and values."""
RUNNER = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
"""The model runner whose batch the steering reads."""
EXTENSION = "rod_extension.SteeringExtension"
SAMPLING = "rod_sampling:RowSampling"
"""What vLLM loads of this folder."""
