// Each test runs a fleet of its own, and waits for it more than it computes.
[assembly: CollectionBehavior(MaxParallelThreads = 2)]
