"""The peers that twstock is compared with; each module starts one and says what to install."""
