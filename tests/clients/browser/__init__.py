"""The gallery, in headless Chromium, and its noise in Node.js."""
