"""Make the vectors of the general vocabulary for the embedded model, which come with the package.

Without them the first naming of clusters would encode some ten thousand sentences, most of a minute. Run it after a
change of the nouns or of the model: ``python benchmarks/make_words.py``.
"""

from mmsearch.encoders import load_encoder
from mmsearch.lexicon import encoded, shipped_file, write_words
from mmsearch.vocabulary import general_nouns


def main() -> None:
    """Write the file, and remove those of former nouns or models."""
    encoder = load_encoder("mini")
    nouns = general_nouns()
    file = shipped_file(encoder)
    for former in file.parent.glob("*.npz"):
        former.unlink()
    write_words(file, dict(zip(nouns, encoded(nouns, lambda: encoder, pictures=True), strict=True)))
    print(f"{file.name}: {len(nouns)} nouns, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
