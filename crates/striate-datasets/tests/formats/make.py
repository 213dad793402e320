"""Makes the files in this folder: `python make.py` (scipy 1.17, numpy)."""
from pathlib import Path
import numpy as np
from scipy.io import savemat

here = Path(__file__).parent
row, column, channel, number = np.mgrid[0:32, 0:32, 0:3, 0:5]
x = ((7 * row + 3 * column + 50 * channel + 11 * number) % 256).astype(np.uint8)
y = np.array([[1], [10], [7], [9], [2]], dtype=np.uint8)
savemat(here / "compressed.mat", {"other": np.eye(3), "X": x, "y": y}, do_compression=True)
# As few labels as fit into their element's header.
savemat(here / "plain.mat", {"X": x[..., :1], "y": y[:1]})
