"""A new release that can't take over what the old one hands over, while a client asks 1,000 times a second."""

from proxy.lab.failover_case import AT_ONCE
from proxy.lab.scenario import LOSES_NOTHING
from proxy.lab.scenarios.new_release import RATE, NewRelease
from proxy.lab.sidestep import OTHER_FORMAT


class NewReleaseOtherFormat(NewRelease):
    name = "new_release_other_format"
    title = f"New release that hands over otherwise, at {RATE:,}/s"
    source = "dns#667"
    story = (
        "Some release will hand over in another format, and one of the two versions doesn't know it. Sidestep's old "
        "release then refuses and shares its ports; the new one binds beside it, and once it serves the kernel sends "
        "everything there. The cache begins empty."
    )
    on_sidestep = (LOSES_NOTHING, AT_ONCE)
    release = OTHER_FORMAT
