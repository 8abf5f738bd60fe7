using System.Text.RegularExpressions;
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

    public static Problem? Validate(ReportsRequest request)
    {
        var errors = new ValidationErrors();
        if (!SpoolId().IsMatch(request.SpoolId))
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

        return errors.ToProblem();
    }

    private static void Check(AgentReport report, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(report.Vm))
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
            default:
                errors.Add($"{path}.kind", "poison or hit.");
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

        if (report.Source is not null && !PageSources.IsValid(report.Source))
        {
            errors.Add($"{path}.source", "vmm, memory-failure, operator or import.");
        }
    }

    private static void CheckHit(AgentReport report, string path, ValidationErrors errors)
    {
        if (report.Frame is < 0 or > FrameMath.MaximumFrame)
        {
            errors.Add($"{path}.frame", "Not a guest frame number (4 KiB units, below 2^40).");
        }

        if (report.PlacementEpoch is null)
        {
            errors.Add($"{path}.placementEpoch", "Needed for a hit.");
        }

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

    [GeneratedRegex(@"\A[0-9a-f]{32}\z")]
    private static partial Regex SpoolId();
}
