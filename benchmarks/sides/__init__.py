"""The sides of the comparisons, each a process of its own: ``python -m benchmarks.sides NAME SETTINGS OUT``.

A side is named ``module:function`` and imported only in its own process, so that no side pays for another's
libraries.
"""

SIDES = {
    "trl": "trl_dpo:live",
    "trl, reference precomputed": "trl_dpo:precomputed",
    "prefero": "prefero_dpo:live",
    "prefero, reference cached": "prefero_dpo:cached",
    "prefero, bf16": "prefero_dpo:live_bf16",
    "prefero, reference cached, bf16": "prefero_dpo:cached_bf16",
    "cross-entropy, same forests": "cross_entropy:forests",
    "cross-entropy, padded rows": "cross_entropy:padded_rows",
}
