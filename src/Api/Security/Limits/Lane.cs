using Microsoft.AspNetCore.Authorization;

namespace Fleet.Api.Security.Limits;

/// <summary>Lanes in the order in which they matter; one that is full does not slow another.</summary>
public enum Lane
{
    None,
    Switchover,
    Reports,
    Heartbeat,
    Lists,
    Anonymous,
}

internal static class Lanes
{
    /// <summary>By operation id; agents' other routes go with the heartbeats, everything else with the lists.</summary>
    internal static readonly IReadOnlyDictionary<string, Lane> ByOperation = new Dictionary<string, Lane>(StringComparer.Ordinal)
    {
        ["PutMigration"] = Lane.Switchover,
        ["GetMigration"] = Lane.Switchover,
        ["SwitchOver"] = Lane.Switchover,
        ["CompleteMigration"] = Lane.Switchover,
        ["AbortMigration"] = Lane.Switchover,
        ["ParkVm"] = Lane.Switchover,
        ["RebuildVm"] = Lane.Switchover,
        ["FenceHost"] = Lane.Switchover,
        ["ReleaseVm"] = Lane.Switchover,
        ["StateHost"] = Lane.Reports,
        ["SendReports"] = Lane.Reports,
        ["AddPages"] = Lane.Reports,
        ["Live"] = Lane.None,
        ["Ready"] = Lane.None,
    };

    public static Lane Of(Endpoint? endpoint) =>
        endpoint?.Metadata.GetMetadata<IEndpointNameMetadata>() is { } name && ByOperation.TryGetValue(name.EndpointName, out var lane) ? lane
        : endpoint?.Metadata.GetMetadata<AgentRoute>() is not null ? Lane.Heartbeat
        : endpoint?.Metadata.GetMetadata<IAllowAnonymous>() is not null ? Lane.Anonymous
        : endpoint is null ? Lane.Anonymous
        : Lane.Lists;
}
