"""Parts that adversarial families share: losses, unrolling, augmentation."""
