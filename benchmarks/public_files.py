"""The model files of others that surgery is tried on; none of them is in this repository."""

from __future__ import annotations

FILES: tuple[tuple[str, str], ...] = (
    ("24kshah/Emotion-detection", "model.h5"),
    ("98mprice/mario-level-generator", "model.keras"),
    ("AliElgamel9/FastNeuralStyleTransfer", "model.keras"),
    ("ALbaghdadi/Eye_State_detection", "model.keras"),
    ("AlgoDM-Fall2023-Team2/Visual-Search-Using-Variational-Autoencoders", "model.keras"),
    ("2000222/My_Self_Driving_Car", "model.h5"),
    ("15louafi/EnglishToKatakanaSeq2Seq", "model.h5"),
    ("20WH1A6637/SignLanguageDetection", "model.h5"),
    ("3barney/raspberry_car", "model.keras"),
    ("boga-man/BasicDCGAN", "generator.h5"),
    ("VineethVuyyuru/HW_Digit_Image_Generator", "generator.h5"),
    ("vladvoicux64/colourspark", "autoencoder.keras"),
    ("07Sada/sound-classification", "model.h5"),
    ("sbrunner/clean-document", "results/model_256_YUV_32_64.keras"),
    ("shivankarora/Deep-learning-Super-Sampling", "generator.h5"),
    ("HouYueJie/CAE_Keras", "autoencoder.h5"),
    ("102757017/lstm-multi", "model.h5"),
    ("106ab8037/keras", "model.h5"),
    ("2000222/My_Self_Driving_Car", "aug_model.h5"),
    ("2000222/My_Self_Driving_Car", "new_model.h5"),
    ("2202-Aryan/Handwritten_Digit_Recognition", "model.h5"),
    ("27caribou/lstm-melody-generation", "model.h5"),
    ("3barney/raspberry_car", "model.h5"),
    ("98mprice/mario-level-generator", "model3.keras"),
    ("boga-man/BasicDCGAN", "discriminator.h5"),
    ("nakahatar111/1D_GAN", "1D_gan.h5"),
    ("nakahatar111/1D_GAN", "discriminator.h5"),
    ("nakahatar111/1D_GAN", "generator.h5"),
)
"""Repositories on GitHub, and the paths of the files in them."""


def title(repository: str, path: str) -> str:
    """How a file is called in the results."""
    return f"{repository}: {path}"


def file_name(name: str) -> str:
    """How a file of the results is called in the folder of the files."""
    repository, path = name.split(": ")
    return f"{repository.replace('/', '+')}__{path.replace('/', '_')}"
