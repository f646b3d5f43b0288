"""The torture cases of RFC 4475 and RFC 5118, written anew after their descriptions."""
