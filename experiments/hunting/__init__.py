"""The hunt: thousands of seeded fault schedules, searched for one that breaks an invariant."""
