using System.Security.Claims;
using Fleet.Api.Metrics;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Restore;
using Fleet.Api.Security;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Agents;

public static class HeartbeatEndpoints
{
    public static void MapHeartbeat(this IEndpointRouteBuilder routes) =>
        routes.MapPost("/hosts/{host}/heartbeat", HeartbeatAsync)
            .RequireOwnAgent()
            .WithName("SendHeartbeat")
            .WithTags("Agents")
            .WithSummary("Say what is armed on the host")
            .WithDescription("Kept in memory. The answer names the VMs whose generation or set differs from the control plane's, and those that do not concern the host: fetch those whole.")
            .WithMetadata(new RequestSizeLimit(16 * 1024 * 1024))
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.AgentSuperseded,
                ProblemTypes.StatementRequired);

    private static async Task<Results<Ok<HeartbeatResult>, ProblemHttpResult>> HeartbeatAsync(
        string host,
        HeartbeatRequest request,
        ClaimsPrincipal user,
        StatusBoard board,
        Contests contests,
        DesiredIndex index,
        Admission admission,
        CancellationToken cancellationToken)
    {
        if (HeartbeatValidator.Validate(request) is { } invalid)
        {
            return invalid.ToResult();
        }

        var (statementRequired, desired) = await index.OfAsync(host, cancellationToken);
        if (statementRequired || board.IsFuture(host, request.Incarnation))
        {
            if (await admission.RefuseAsync(host, request.Incarnation, user.Actor(), cancellationToken) is { } refused)
            {
                return refused.ToResult();
            }
        }

        // More than what was to be known is either news that the index has not read yet, or a database put back from a backup.
        var ahead = request.Vms.Where(vm => !desired.TryGetValue(vm.Vm, out var known) || vm.Generation > known.Generation || vm.MemoryInstance > known.MemoryInstance).ToList();
        if (ahead.Count > 0)
        {
            var shown = new Shown(host, 0, request.Incarnation, [.. ahead.Select(vm => new ShownVm(vm.Vm, vm.Generation, vm.MemoryInstance))]);
            if (await admission.SuspectAsync(shown, user.Actor(), cancellationToken) is { } refused)
            {
                return refused.ToResult();
            }
        }

        // Only VMs that concern the host are kept (I7), whatever an agent claims to know.
        var known = request.Vms.Where(vm => desired.ContainsKey(vm.Vm)).ToDictionary(vm => vm.Vm, StringComparer.Ordinal);
        if (!board.Heartbeat(host, request.Incarnation, known))
        {
            return new Problem(ProblemTypes.AgentSuperseded).ToResult();
        }

        contests.Used(host, request.Incarnation);
        FleetMetrics.Heartbeats.Add(1);
        FleetMetrics.HitsUnreported.Add(board.CountUnreportedHits(host, request.Incarnation, request.UnreportedHits));
        var differ = desired.Values.Where(vm => Differs(vm, known.GetValueOrDefault(vm.Vm))).Select(vm => vm.Vm);
        // Told of as well what it should not know any more: fetching it, the agent learns that it is gone.
        var gone = request.Vms.Select(vm => vm.Vm).Where(vm => !desired.ContainsKey(vm));
        var refetch = differ.Concat(gone).Order(StringComparer.Ordinal);
        return TypedResults.Ok(new HeartbeatResult(DurationText.Format(board.Interval), [.. refetch]));
    }

    private static bool Differs(DesiredState desired, VmStatus? status) =>
        status is null
        || status.MemoryInstance != desired.MemoryInstance
        || status.Generation != desired.Generation
        || (status.ArmedGeneration == desired.Generation && status.Digest != desired.Digest);
}
