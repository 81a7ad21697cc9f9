"""Bills of materials: the packages of an image, as CycloneDX and SPDX documents.

Equal images give equal bytes: nothing depends on the clock, on chance, or on the machine. Needs the
extra `sbom`, whose libraries only these modules import.
"""
