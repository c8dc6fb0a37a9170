"""The demand protocol, pure: messages in, effects out; no asyncio, thread, socket, clock, random number or log line."""
