"""`rod report`: one HTML page of any run folders."""
