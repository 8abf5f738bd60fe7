// The tests count this process's descriptors and hold its memory: one at a time.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
[assembly: AssemblyFixture(typeof(Fleet.HostAgent.Tests.SubjectProgram))]
