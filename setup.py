"""Packaging. ``twisted.plugins`` is listed so that ``twistd`` finds the services."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "twstock/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

setup(
    name="twstock",
    version=VERSION,
    description="A distributed stock trading server on Twisted: every trade exactly once.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The twstock authors",
    keywords=["trading", "replication", "raft", "twisted", "grpc"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: Financial and Insurance Industry",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Office/Business :: Financial :: Investment",
        "Typing :: Typed",
    ],
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # An editable install finds twisted/plugins only when the root is named explicitly.
    package_dir={"": "."},
    packages=[
        "twstock",
        "twstock.backup",
        "twstock.catalog",
        "twstock.client",
        "twstock.commands",
        "twstock.order",
        "twstock.pb",
        "twstock.replication",
        "twstock.rpc",
        "twstock.rpc.wire",
        "twstock.web",
        "twstock.web.feed",
        "twstock.web.http",
        "twstock.web.upstream",
        "twisted.plugins",
    ],
    package_data={
        "twstock": ["py.typed", "catalog.csv"],
        "twstock.pb": ["*.pyi"],
        "twstock.web": ["docs.css", "static/**"],
    },
    entry_points={"console_scripts": ["twstock = twstock.cli:main"]},
    install_requires=[
        "Twisted>=24.11",
        "klein>=24.8",
        "treq>=24.9",
        "hyperlink>=21.0",
        "grpcio>=1.75.1",
        "protobuf>=6.31.1",
        "prometheus_client>=0.22",
        "pylru>=1.2.1",
        "zope.interface>=5",
        # Klein 24.8 uses what Werkzeug 3.2 removes.
        "Werkzeug>=3.1,<3.2",
    ],
    extras_require={
        # gRPC health checking and reflection: served where they are installed.
        "grpc": ["grpcio-health-checking>=1.75.1", "grpcio-reflection>=1.75.1"],
    },
)
