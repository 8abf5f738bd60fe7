using System.Text.RegularExpressions;
using Fleet.Api.Faults;
using Fleet.Api.Pages;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;

namespace Fleet.Api.Agents;

/// <summary>The shape of a request. What is well formed but can never apply is not an error here: it is rejected when applied.</summary>
internal static partial class ReportValidator
{
    private const int MaximumReports = 1000;
    private const int MaximumUnservable = 200_000;
    private const int MaximumInstance = 128;
    private const int MaximumCode = 64;
    private const int MaximumDetail = 500;

    public static Problem? Validate(ReportsRequest request)
    {
        var errors = new ValidationErrors();
        if (!IsSpoolId(request.SpoolId))
        {
            errors.Add("$.spoolId", "32 lower-case hex digits.");
        }

        if (request.Reports.Count > MaximumReports)
        {
            errors.Add("$.reports", $"At most {MaximumReports}.");
            return errors.ToProblem();
        }

        for (var index = 0; index < request.Reports.Count; index++)
        {
            var path = $"$.reports[{index}]";
            if (request.Reports[index] is not { } report)
            {
                errors.Add(path, "Must not be null.");
                continue;
            }

            var expected = index == 0 ? Math.Max(1, report.Sequence) : request.Reports[0]?.Sequence + index;
            if (report.Sequence != expected)
            {
                errors.Add($"{path}.sequence", "From 1, ascending, without gaps.");
            }

            Check(report, path, errors);
        }

        CheckAll(request.Acks, "$.acks", Check, errors);
        CheckAll(request.Obstacles, "$.obstacles", Check, errors);
        return errors.ToProblem();
    }

    private static void CheckAll<T>(IReadOnlyList<T>? items, string path, Action<T, string, ValidationErrors> check, ValidationErrors errors)
    {
        if (items?.Count > MaximumReports)
        {
            errors.Add(path, $"At most {MaximumReports}.");
            return;
        }

        for (var index = 0; index < items?.Count; index++)
        {
            check(items[index], $"{path}[{index}]", errors);
        }
    }

    private static void Check(AgentReport report, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(report.Vm) && !(report.Vm is null && report.Kind == AgentReport.Fault))
        {
            errors.Add($"{path}.vm", $"An id of the form {ResourceId.Pattern}.");
        }

        if (report.LastAt < report.FirstAt)
        {
            errors.Add($"{path}.lastAt", "Not before firstAt.");
        }

        if (report.Count < 1)
        {
            errors.Add($"{path}.count", "1 or more.");
        }

        switch (report.Kind)
        {
            case AgentReport.Poison:
                CheckPoison(report, path, errors);
                break;
            case AgentReport.Hit:
                CheckHit(report, path, errors);
                break;
            case AgentReport.MarkerLost:
                CheckPlace(report, path, errors);
                break;
            case AgentReport.Fault:
                FaultValidator.Check(report, path, errors);
                break;
            case AgentReport.Seal or AgentReport.Lifted or AgentReport.Renounced:
                CheckGate(report, path, errors);
                break;
            case AgentReport.VmmGone:
                break;
            default:
                errors.Add($"{path}.kind", "poison, hit, fault, marker-lost, seal, lifted, renounced or vmm-gone.");
                break;
        }
    }

    private static void CheckPoison(AgentReport report, string path, ValidationErrors errors)
    {
        PageValidator.CheckPage(report.Frame, report.Shift ?? 0, path, errors);
        if (report.Class is not null && !PageClasses.IsValid(report.Class))
        {
            errors.Add($"{path}.class", "srar, srao, ucna or unknown.");
        }

        if (report.Origin is not null && !PoisonOrigins.IsValid(report.Origin))
        {
            errors.Add($"{path}.origin", "held, sealed or incoming.");
        }

        if (report.Source is not null && !PageSources.IsValid(report.Source))
        {
            errors.Add($"{path}.source", "vmm, memory-failure, operator or import.");
        }
    }

    private static void CheckGate(AgentReport report, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(report.Migration))
        {
            errors.Add($"{path}.migration", $"An id of the form {ResourceId.Pattern}.");
        }

        CheckEpoch(report, path, errors);
        if (report.TargetVmmInstance is { } instance)
        {
            CheckText(instance, MaximumInstance, $"{path}.targetVmmInstance", errors);
        }
    }

    private static void Check(GateAck? ack, string path, ValidationErrors errors)
    {
        if (ack is null)
        {
            errors.Add(path, "Must not be null.");
            return;
        }

        CheckTarget(ack.Vm, ack.Migration, path, errors);
        CheckText(ack.VmmInstance, MaximumInstance, $"{path}.vmmInstance", errors);
        if (!Digest().IsMatch(ack.Digest))
        {
            errors.Add($"{path}.digest", "64 lower-case hex digits.");
        }

        if (ack.Unservable.Count > MaximumUnservable)
        {
            errors.Add($"{path}.unservable", $"At most {MaximumUnservable}.");
            return;
        }

        for (var index = 0; index < ack.Unservable.Count; index++)
        {
            PageValidator.CheckPage(ack.Unservable[index].Frame, ack.Unservable[index].Shift, $"{path}.unservable[{index}]", errors);
        }
    }

    private static void Check(GateObstacle? obstacle, string path, ValidationErrors errors)
    {
        if (obstacle is null)
        {
            errors.Add(path, "Must not be null.");
            return;
        }

        CheckTarget(obstacle.Vm, obstacle.Migration, path, errors);
        CheckText(obstacle.Code, MaximumCode, $"{path}.code", errors);
        if (obstacle.Detail is { } detail)
        {
            CheckText(detail, MaximumDetail, $"{path}.detail", errors);
        }
    }

    private static void CheckTarget(string vm, string migration, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(vm))
        {
            errors.Add($"{path}.vm", $"An id of the form {ResourceId.Pattern}.");
        }

        if (!ResourceId.IsValid(migration))
        {
            errors.Add($"{path}.migration", $"An id of the form {ResourceId.Pattern}.");
        }
    }

    private static void CheckText(string text, int most, string path, ValidationErrors errors)
    {
        if (text.Length == 0 || text.Length > most || text.Any(char.IsControl))
        {
            errors.Add(path, $"1 to {most} characters, no control characters.");
        }
    }

    private static void CheckHit(AgentReport report, string path, ValidationErrors errors)
    {
        CheckPlace(report, path, errors);
        if (report.Access is null || !HitAccesses.IsValid(report.Access))
        {
            errors.Add($"{path}.access", "read, write, fetch or unknown.");
        }

        if (report.Evidence is null || !HitEvidences.IsValid(report.Evidence))
        {
            errors.Add($"{path}.evidence", "uffd, kvm-page-fault, user-page-fault, vmm or qmp.");
        }

        if (report.Outcome is null || !HitOutcomes.IsValid(report.Outcome))
        {
            errors.Add($"{path}.outcome", "mce-injected, vm-killed, blocked or unknown.");
        }
    }

    private static void CheckPlace(AgentReport report, string path, ValidationErrors errors)
    {
        if (report.Frame is < 0 or > FrameMath.MaximumFrame)
        {
            errors.Add($"{path}.frame", "Not a guest frame number (4 KiB units, below 2^40).");
        }

        CheckEpoch(report, path, errors);
    }

    private static void CheckEpoch(AgentReport report, string path, ValidationErrors errors)
    {
        if (report.PlacementEpoch is null)
        {
            errors.Add($"{path}.placementEpoch", $"Needed for {report.Kind}.");
        }
    }

    public static bool IsSpoolId(string? text) => text is not null && SpoolId().IsMatch(text);

    [GeneratedRegex(@"\A[0-9a-f]{64}\z")]
    private static partial Regex Digest();

    [GeneratedRegex(@"\A[0-9a-f]{32}\z")]
    private static partial Regex SpoolId();
}
