// Each test runs a fleet of its own; two at a time would only be slower on two cores.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
