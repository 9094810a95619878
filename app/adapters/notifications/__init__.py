"""Ways to reach people and programs; every connection goes through `egress`."""
