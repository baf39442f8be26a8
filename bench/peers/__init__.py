"""The peers that twstock is measured beside; each module starts one and says what to install."""
