"""The section `report` of params.yaml."""

from ntulm.section import Section, Share


class Report(Section):
    min_coverage: Share
