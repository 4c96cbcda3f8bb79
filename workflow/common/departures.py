"""What the evaluation follows and where it departs from it: data that `evaluation` and `methods describe` both show.

The departures of training stand in each method's SOURCES.
"""

from __future__ import annotations

EVALUATION = (
    "DP-GAN-DPAC, evaluation/*.py and README of the authors' repository; GS-WGAN, evaluation/*.py, from which most of "
    "it comes. Preset paper has the settings of DP-GAN-DPAC's README",
    "departure: every row is scored alike; the published numbers of the other methods are by evaluations of their own",
    # Samples.
    "departure: samples are rounded to 8 bits; GS-WGAN's and DP-GAN-DPAC's code scores floats, DP-Sinkhorn's does so "
    "but for the FID, where it cuts off instead of rounding, and DPGAN's rounds too",
    "departure: samples have balanced labels, as GS-WGAN's, DP-GAN-DPAC's and DP-MERF's; DP-Sinkhorn's, DPGAN's, "
    "DataLens' and G-PATE's are drawn at random, DP-CGAN's and PATE-GAN's follow the classes of the private data",
    "departure: as many samples of every method; DataLens and G-PATE score 100 000",
    "departure: DP-Sinkhorn blackens each pixel below mid-grey of its samples before it scores them; here nobody does",
    # Data.
    "departure: CelebA is tested on its test split unless it is prepared with the other; DP-GAN-DPAC and DP-Sinkhorn "
    "test on the validation split",
    # Classifiers.
    "departure: both real2gen classifiers learn the train split; DP-GAN-DPAC's CNN learns the test split of MNIST and "
    "Fashion-MNIST (10 000 images, always in the same order), so that as many epochs are here five times the steps",
    "departure: schedule step multiplies the rate by 0.1 after 80 % of the epochs; the authors do so at epoch 40, of "
    "50 and of 100 (real2gen's CNN on MNIST and Fashion-MNIST) alike",
    "departure: a CNN learns nine tenths of its images and keeps the epoch that does best on the rest; the authors' "
    "learns all, and they print the test accuracy of every epoch without saying which one they report",
    "departure: the MLP for CelebA is scikit-learn's on pixels in [0, 1], as for MNIST; the repository has a torch MLP "
    "(3072-100-2, no holdout) on pixels normalised to [-1, 1], with SGD at 0.02 and the CNN's 50 epochs",
    "departure: real2gen is scored on all samples; DP-GAN-DPAC's MLP for MNIST and Fashion-MNIST on 10 000 of 60 000",
    "departure: the batches of an epoch are equally large; the authors' last one is smaller",
    # Inception score and FID.
    "departure: the IS network sees no horizontal flips, which the authors' meets with probability 1/2, digits too",
    "departure: convolutions of the IS network have no bias, which the batch norm behind each would take out again",
    "departure: the IS of CelebA is by the same network, trained on the gender labels, hence at most 2; DP-GAN-DPAC's "
    "is by torchvision's Inception for ImageNet, at 299x299",
    "departure: fid_classifier compares features of the IS network, on another scale than the published FID",
    "departure: fwd, the Frechet wavelet distance, is in none of these papers; evaluation/wavelets.py says where it "
    "follows its authors and where not",
    "departure: fid_inception takes at most inception_images a side, by torch-fidelity's copy of the 2015 network; the "
    "authors take 20 000 samples (all 12 000 of CelebA) and all real train images, for CelebA the validation split too",
)
