"""The latency of backbones' blocks on a device, for a search before anything is trained."""
