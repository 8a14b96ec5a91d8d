"""How far a measured accuracy can be from the true one. Knows counts only."""


def clopper_pearson(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share, `correct` of `total`, at confidence `level` (Clopper and Pearson, 1934).

    The paper gives every accuracy with this interval at 95 %. Raises ValueError unless 0 <= correct <= total and
    total > 0.
    """
    from scipy.special import betaincinv  # 0.1 s, which a mere merge should not pay

    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} correct of {total}: no share")
    tail = (1 - level) / 2
    low = betaincinv(correct, total - correct + 1, tail) if correct else 0.0
    high = betaincinv(correct + 1, total - correct, 1 - tail) if correct < total else 1.0
    return float(low), float(high)
