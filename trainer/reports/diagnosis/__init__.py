"""How good the gradient estimators are on a trained generator and discriminator."""
