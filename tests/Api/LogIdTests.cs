using Fleet.Api.Startup;
using Fleet.Data;
using Fleet.Tests.Shared;

namespace Fleet.Api.Tests;

public sealed class LogIdTests
{
    [Fact]
    public void LoggerMessages_OfTheControlPlane_HaveAnIdEach() => LogIds.AreUnique(25, typeof(FleetApp).Assembly, typeof(FleetDbContext).Assembly);
}
