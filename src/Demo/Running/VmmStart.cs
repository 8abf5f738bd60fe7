namespace Fleet.Demo.Running;

/// <summary>How a VMM is started for migrations.</summary>
/// <param name="Barrier">Its guest runs only when the agent says so.</param>
/// <param name="Incoming">Endpoint on which it waits for another VMM's RAM; null for a VM that starts here.</param>
/// <param name="Unprotected">An incoming guest needs no permission: for negative controls.</param>
/// <param name="Vcpu"><c>kvm</c> or <c>software</c>.</param>
/// <param name="Backing"><c>memfd</c>, <c>anonymous</c> or <c>hugetlb</c>.</param>
public sealed record VmmStart(bool Barrier = false, string? Incoming = null, string Vcpu = "kvm", bool Unprotected = false, string Backing = "memfd")
{
    public IEnumerable<string> Arguments()
    {
        if (Barrier)
        {
            yield return "--barrier";
        }

        if (Incoming is not null)
        {
            yield return "--incoming";
            yield return Incoming;
        }

        if (Unprotected)
        {
            yield return "--unprotected";
        }

        yield return "--backing";
        yield return Backing;
        yield return "--vcpu";
        yield return Vcpu;
    }
}
