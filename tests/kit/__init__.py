"""What the tests share: commands, models, servers, proxies, certificates. Nothing here is a mock."""
