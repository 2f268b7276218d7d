"""MoGUv2, reconstructed from its abstract: probes choose the routed layers, and the backbone is trained, too."""
