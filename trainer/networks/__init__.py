"""Generators, discriminators and output neurons, sized by one rule for any image shape.

"mlp" and "cnn" are those of Dong and Yang 2018, Tables 1 to 4.

The rule: at 28x28x1 every network is the published one, or the one that docs/recipe.md found. For other shapes
- MLPs keep their units, but for the layer at the image, which has at most 2^24 weights: up to 16,384 pixels
  (1x128x128) it has its 1,024 or 512 units, beyond that fewer;
- a CNN halves each axis by itself until it is short, so a long thin image is first halved along its length
  alone; every further halving has twice the channels, up to a bound, so that each level costs about the same.

Shapes: B batch, Z latent size, C channels, H rows, W columns, K classes; labels are int64 [B] from 0.
"""
