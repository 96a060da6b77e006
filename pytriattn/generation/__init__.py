"""From logits to tokens, texts and chats."""
