using System.Text.Json;
using Fleet.HostAgent.Check;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Enforce;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>The verb <c>check</c>: what an operator, and a script, is told of a host.</summary>
public sealed class CheckTests
{
    [Fact]
    public async Task Check_OnThisHost_PrintsEveryCellAndIsOk()
    {
        Requires.Userfaultfd();
        using var output = new StringWriter();

        Assert.Equal(0, await CheckCommand.RunAsync(json: true, output));

        using var json = JsonDocument.Parse(output.ToString());
        Assert.True(json.RootElement.GetProperty("ok").GetBoolean());
        var cells = json.RootElement.GetProperty("cells").EnumerateArray()
            .Select(cell => $"enforce.{cell.GetProperty("memory").GetString()}.{cell.GetProperty("zap").GetString()}.{cell.GetProperty("policy").GetString()}");
        Assert.Equal(EnforcementCell.All.Select(cell => cell.Name), cells);
        var capabilities = json.RootElement.GetProperty("capabilities");
        Assert.Equal("yes", capabilities.GetProperty("policy.marker.memfd").GetString());
        Assert.StartsWith("no: the madvise", capabilities.GetProperty("enforce.guaranteed-zap").GetString(), StringComparison.Ordinal);
        Assert.True(capabilities.TryGetProperty("observation", out _));
    }

    /// <summary>The control plane takes at most 200 of them, with values of at most 200 characters.</summary>
    [Fact]
    public void Capabilities_FitIntoAClaim()
    {
        var table = CapabilityProbe.Table();

        Assert.InRange(table.Count, 20, 200);
        Assert.All(table, pair => Assert.True(pair.Key.Length <= 64 && pair.Value.Length <= 200, $"{pair.Key}: {pair.Value}"));
        Assert.All(EnforcementCell.All, cell => Assert.True(table[cell.Name] == "yes" || table[cell.Name].StartsWith("no: ", StringComparison.Ordinal), cell.Name));
    }

    /// <summary>By what is missing: the words that must stand in the advice.</summary>
    [Theory]
    [InlineData("userfaultfd", "no: userfaultfd: ENOSYS", true, "CONFIG_USERFAULTFD")]
    [InlineData("userfaultfd", "no: userfaultfd: EPERM", true, "run as root")]
    [InlineData("userfaultfd.poison", "no: needs Linux 6.6", true, "Linux 6.6")]
    [InlineData("policy.marker.memfd", "no: punch-hole: the page could be read", true, "the page could be read")]
    [InlineData("policy.marker.hugetlb", "no: punch-hole: memfd_create: ENOENT", true, "hugetlbfs")]
    [InlineData("observation", "none", false, "CAP_SYS_PTRACE")]
    public void Advice_ForWhatIsMissing_SaysWhatToDo(string name, string value, bool privileged, string words)
    {
        var capabilities = new Dictionary<string, string>
        {
            ["userfaultfd"] = "yes",
            ["userfaultfd.poison"] = "yes",
            ["policy.marker.memfd"] = "yes",
            ["policy.marker.hugetlb"] = "yes",
            [name] = value,
        };
        if (name != "policy.marker.hugetlb" && name != "observation")
        {
            capabilities["policy.marker.memfd"] = "no: it does not work";
            capabilities[name] = value;
        }

        var report = CheckReport.Make(capabilities, privileged, new EnforcementTable([]));

        Assert.Contains(report.Advice, advice => advice.Contains(words, StringComparison.Ordinal));
        Assert.Equal(name == "policy.marker.hugetlb", report.Ok);
        Assert.Contains(report.Ok ? "can be enforced" : "CANNOT be enforced", CheckCommand.Text(report), StringComparison.Ordinal);
    }
}
