"""What a training set that is not correct at a point in time promises, and what is left of that: python leak.py."""

import sys

from definitions import defs, stays_away
from labels import labels
from model import Model
from train import auc, auc_of_counting, split

import mlforge as mlf


def main() -> None:
    """Train the same model on both kinds of rows, and judge both by what they would have met in service."""
    asked = labels()
    try:
        then = defs.get_training_data(stays_away, asked, timestamp="label_time")
        # Without timestamp= every label gets the values that hold now, which for a label of the past is its future.
        now = defs.get_training_data(stays_away, asked)
    except mlf.MlforgeError as error:
        sys.exit(str(error))
    learned, judged = split(then)
    leaky_learned, leaky_judged = split(now)
    model, leaky = Model.fit(stays_away, learned), Model.fit(stays_away, leaky_learned)
    print(f"{learned.height:,} labels to learn from, {judged.height:,} later ones to judge by; ", end="")
    print(f"{judged['stays_away'].mean():.0%} of these stay away. AUC:")
    print("                             promised   kept")
    print(f"counting visits, no model              {auc_of_counting(judged):.3f}")
    print(f"timestamp='label_time'          {auc(model, judged):.3f}  {auc(model, judged):.3f}")
    print(f"without timestamp=              {auc(leaky, leaky_judged):.3f}  {auc(leaky, judged):.3f}")


if __name__ == "__main__":
    main()
