"""What adversarial families share: losses, unrolling, augmentation."""
