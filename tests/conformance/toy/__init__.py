"""A whole domain in about sixty lines, outside of ``domains``: blobs that drift around a ring."""
