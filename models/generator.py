"""Made-up card payments with a fraud label: the same seed gives the same rows.

README.md ("The fraud generator") says in words what the features mean and how the label arises.
"""

import numpy as np

COLUMNS = [
    "amount",
    "hour",
    "merchant_risk",
    "distance_km",
    "transactions_last_day",
    "account_age_days",
    "is_foreign",
    "chip_used",
]
LABEL = "is_fraud"


def payments(rows, seed):
    """`rows` payments as (features float32 [rows, 8], is_fraud int64 [rows])."""
    rng = np.random.default_rng(seed)
    features = _features(rng, rows)
    suspicion = _suspicion(*features.T)
    fraud = rng.random(rows) < 1 / (1 + np.exp(-suspicion))
    return features.astype(np.float32), _label_noise(rng, fraud).astype(np.int64)


def late_chargebacks(features, is_fraud, seed):
    """The labels as they stood before all chargebacks were in: what version 3 was trained on by mistake.

    The further away a payment was made, the longer its chargeback takes: 85 % of the frauds from beyond
    1,000 km are still booked as legitimate.
    """
    rng = np.random.default_rng(seed)
    distance_km = features[:, COLUMNS.index("distance_km")]
    missing = (distance_km > 1_000) & (rng.random(len(is_fraud)) < 0.85)
    return np.where(missing, 0, is_fraud)


def _features(rng, rows):
    """The eight columns, rounded as a payment system would send them."""
    is_foreign = rng.random(rows) < 0.15
    chip_used = rng.random(rows) < np.where(is_foreign, 0.55, 0.65)
    distance_km = np.where(is_foreign, rng.lognormal(7.0, 0.8, rows), rng.lognormal(2.0, 1.5, rows))
    hour = np.where(rng.random(rows) < 0.8, rng.normal(14, 4, rows), rng.uniform(0, 24, rows)) % 24
    return np.column_stack(
        [
            np.clip(rng.lognormal(3.8, 1.5, rows), 0.5, 50_000).round(2),
            np.floor(hour),
            rng.beta(1.6, 4, rows).round(3),
            np.clip(distance_km, 0, 20_000).round(1),
            np.minimum(rng.negative_binomial(1.2, 0.25, rows), 60),
            np.minimum(rng.gamma(1.6, 700, rows), 10_000).round(),
            is_foreign,
            chip_used,
        ]
    )


def _suspicion(amount, hour, risk, distance_km, last_day, age_days, is_foreign, chip_used):
    """Log-odds of fraud: each line but the first two is a pattern of several features at once."""
    no_chip = chip_used == 0
    night = (hour < 6) | (hour == 23)
    odds = np.full(len(amount), -10.5)
    odds += 4.0 * risk + 0.3 * np.log1p(amount / 100)
    odds += 12 * (no_chip & (distance_km > 300) & (risk > 0.15))  # stolen number used far away
    odds += 12 * (night & no_chip & (amount > 300))  # night shopping spree
    odds += 12 * ((last_day >= 9) & (amount < 12))  # testing stolen cards with small sums
    odds += 12 * ((age_days < 60) & (amount > 400))  # account opened to be emptied
    odds -= 6 * ((is_foreign == 1) & (chip_used == 1) & (age_days > 400))  # customer on a journey
    return odds


def _label_noise(rng, fraud):
    """What a back office gets wrong: 3 % of frauds never reported, 0.1 % of good payments disputed."""
    draw = rng.random(len(fraud))
    return np.where(fraud, draw >= 0.03, draw < 0.001)
