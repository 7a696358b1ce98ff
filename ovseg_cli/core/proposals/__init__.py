"""Class-agnostic mask proposals: generators, the cache, import and export."""
