"""Hosts Gymnasium environments for Qanat: started by it, needs numpy and gymnasium, links nothing.

`python PATH/qanat_env_host MEMORY FROM TO` serves one batch of environments over three inherited descriptors; see
envs/host/protocol.h for what is said over them.
"""
