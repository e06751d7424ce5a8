"""`ntulm inspect`: what an export holds, before a corpus is made of it."""
