using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

public sealed class LogIdTests
{
    [Fact]
    public void LoggerMessages_OfTheAgent_HaveAnIdEach() => LogIds.AreUnique(40, typeof(AgentHost).Assembly);
}
