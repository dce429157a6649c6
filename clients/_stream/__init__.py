"""A stream of images as calls and shards of it: opened, resumed and put together."""
