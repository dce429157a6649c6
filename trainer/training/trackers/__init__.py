"""Callbacks that bring a training's figures and pictures to tools that keep and compare runs."""
