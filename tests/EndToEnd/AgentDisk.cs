using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>What an agent's state folder says of a VM: what the agent knows, and what it may not do, whether it runs or not.</summary>
internal sealed class AgentDisk(string folder, string vm)
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>Until the agent knows this of the VM.</summary>
    public Task KnowsAsync(Func<DesiredVm, bool> condition, string what) => LocalFleet.UntilAsync(
        async () => condition(JsonSerializer.Deserialize(await ReadAsync("desired"), FleetJson.Default.DesiredVm)!), $"the agent to know {what}", null, Cancelled);

    /// <summary>Until the VM does not concern the agent any more: a VMM that comes then is not taken for one of a migration that has ended.</summary>
    public Task ForgetsAsync() =>
        LocalFleet.UntilAsync(() => Task.FromResult(!File.Exists(PathOf("desired"))), "the agent to know that the migration has ended", null, Cancelled);

    /// <summary>Until its seal is closed on disk, with the report of it in the spool.</summary>
    public Task SealedAsync() => LocalFleet.UntilAsync(
        async () =>
        {
            using var record = JsonDocument.Parse(await ReadAsync("gate"));
            return record.RootElement.GetProperty("Sealed") is { ValueKind: JsonValueKind.Object } seal && seal.GetProperty("Spooled").GetBoolean();
        },
        "the agent's seal on its disk", null, Cancelled);

    public async Task<(long Right, long Closed)> BarrierAsync()
    {
        using var record = JsonDocument.Parse(await ReadAsync("gate"));
        return (record.RootElement.GetProperty("Right").GetInt64(), record.RootElement.GetProperty("Closed").GetInt64());
    }

    public bool HasBarrier => File.Exists(PathOf("gate"));

    private Task<string> ReadAsync(string kind) => File.ReadAllTextAsync(PathOf(kind), Cancelled);

    private string PathOf(string kind) => Path.Combine(folder, kind, $"{vm}.json");
}
