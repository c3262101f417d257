"""The subcommands: each module has SUMMARY, DESCRIPTION, EPILOG, add_arguments and run, and imports late."""

from sltfast.commands import bif, campaign, demo, doctor, llc, report, susceptibilities, sweep

SUBCOMMANDS = {
    "demo": demo,
    "llc": llc,
    "sweep": sweep,
    "susceptibilities": susceptibilities,
    "bif": bif,
    "campaign": campaign,
    "report": report,
    "doctor": doctor,
}
