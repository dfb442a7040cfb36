"""What adapters exist and where they fit: an adapter is a small file that changes a checkpoint's weights (a LoRA)."""
