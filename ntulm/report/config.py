"""The section `report` of params.yaml."""

from ntulm.section import Count, Section, Share


class Report(Section):
    min_coverage: Share
    examples: Count
