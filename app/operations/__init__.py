"""Operations: health, audit, integrity, retention, configuration changes, event stream.

It uses every capability.
"""
