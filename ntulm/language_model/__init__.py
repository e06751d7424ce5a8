"""The language model with NTU slots, its training and its use; the stages `adapt`, `pretrain` and `encode` share it."""
