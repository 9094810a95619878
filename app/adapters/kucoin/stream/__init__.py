"""KuCoin's WebSocket market stream: connections, subscriptions, frames and market updates."""
