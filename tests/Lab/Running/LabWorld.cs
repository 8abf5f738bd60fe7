using Fleet.Lab.Tests.Emulation;

[assembly: CollectionBehavior(DisableTestParallelization = true)]

namespace Fleet.Lab.Tests.Running;

/// <summary>Two hosts, booted once for all scenarios.</summary>
public sealed class LabWorld : IAsyncLifetime
{
    private readonly LabPaths _paths = LabPaths.Create();

    public LabWorld()
    {
        Transcript = new Transcript(Path.Combine(_paths.Artifacts, "transcript.md"));
        Host1 = new LabHost(_paths, new LabHostName(1), new LabHostName(2));
        Host2 = new LabHost(_paths, new LabHostName(2), new LabHostName(1));
    }

    internal Transcript Transcript { get; }

    internal LabHost Host1 { get; }

    internal LabHost Host2 { get; }

    public async ValueTask InitializeAsync()
    {
        Transcript.Chapter("Two hosts boot");
        await Task.WhenAll(Host1.BootAsync(default), Host2.BootAsync(default));
        foreach (var host in new[] { Host1, Host2 })
        {
            Transcript.Tell($"{host.Name.Text}: {await host.Shell.RunAsync("uname -srv; fleet-agent --version | sed 's/^/fleet-agent /'", default)}".ReplaceLineEndings("; "));
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Host1.DisposeAsync();
        await Host2.DisposeAsync();
        _paths.Finish();
    }
}

[CollectionDefinition("lab")]
public sealed class LabCollection : ICollectionFixture<LabWorld>;
