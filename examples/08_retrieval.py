# Search among sounds by sound: which clip of a collection is most like this one? On the checkpoint that comes with the
# package, with clips of nano's 22 kinds of sound: the collection's and the questions' are made with different parameters.
import numpy as np

import qwen2_audio as qa
from qwen2_audio.evaluate.nano.mix import render_clip
from qwen2_audio.evaluate.nano.sounds.kinds import NAMED

COUNT = 2  # clips of each kind to ask about; docs/embeddings.md has the figures for 14
m = qa.load()
collection = [(kind, render_clip("dev", number, kind)[0]) for kind in NAMED for number in range(3)]
asked = [(kind, render_clip("test", number, kind)[0]) for kind in NAMED for number in range(COUNT)]
for source in ("encoder", "language_model"):
    vectors = m.embed([clip for _, clip in collection], source=source)  # float32 [66, width], each row of length 1
    questions = m.embed([clip for _, clip in asked], source=source)
    nearest = (questions @ vectors.T).argmax(axis=1)  # by cosine
    right = np.mean([collection[index][0] == kind for index, (kind, _) in zip(nearest, asked, strict=True)])
    print(f"{source}: the nearest of {len(collection)} clips is of the same kind for {right:.0%} of {len(asked)}")
